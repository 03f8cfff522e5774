"""What is there: models in a folder tree, their architecture, devices of this machine."""
