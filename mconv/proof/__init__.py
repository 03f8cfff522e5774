"""What the proof is made of: the domains of inputs, the samples drawn from them, and how much a
reference can tell. A leaf: plug-ins may import it."""
