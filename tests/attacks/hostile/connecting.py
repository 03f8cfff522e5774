"""Probes for ways out by a socket."""

import ctypes
import os
import socket

from probing import call, main, probe, read_targets
from probing import report as build  # noqa: F401 (the factory)

TARGETS = read_targets()
WORD = b"reached"
FAST_OPEN = 0x20000000
UNIX, INTERNET, INTERNET_6 = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
LOOPBACK = "127.0.0.1"


@probe
def tcp():
    with socket.create_connection((LOOPBACK, TARGETS["tcp"]), 2) as there:
        return there.send(WORD)


@probe
def tcp_of_the_next_version():
    with socket.socket(INTERNET_6) as there:
        there.connect(("::ffff:127.0.0.1", TARGETS["tcp"]))
        return there.send(WORD)


@probe
def tcp_that_sends_at_once():
    with socket.socket(INTERNET) as there:
        return there.sendto(WORD, FAST_OPEN, (LOOPBACK, TARGETS["tcp"]))


@probe
def tcp_of_several_paths():
    with socket.socket(INTERNET, STREAM, 262) as there:
        there.connect((LOOPBACK, TARGETS["tcp"]))
        return there.send(WORD)


@probe
def a_port_of_its_own():
    with socket.socket(INTERNET) as here:
        here.bind((LOOPBACK, 0))
        here.listen()
        return here.getsockname()


@probe
def a_port_without_a_name():
    with socket.socket(INTERNET) as here:
        here.listen()
        return here.getsockname()


@probe
def udp():
    with socket.socket(INTERNET, DATAGRAM) as there:
        return there.sendto(WORD, (LOOPBACK, TARGETS["udp"]))


@probe
def udp_that_is_connected():
    with socket.socket(INTERNET, DATAGRAM) as there:
        there.connect((LOOPBACK, TARGETS["udp"]))
        return there.send(WORD)


@probe
def udp_lite():
    with socket.socket(INTERNET, DATAGRAM, 136) as there:
        return there.sendto(WORD, (LOOPBACK, TARGETS["udp"]))


@probe
def echo_requests():
    return bool(socket.socket(INTERNET, DATAGRAM, socket.IPPROTO_ICMP))


@probe
def sctp():
    return bool(socket.socket(INTERNET, STREAM, 132))


@probe
def raw_packets():
    return bool(socket.socket(INTERNET, socket.SOCK_RAW, 255))


@probe
def frames():
    return bool(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))


@probe
def netlink():
    return bool(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))


@probe
def other_families():
    """Of them vsock (40), the kernel's cryptography (38), Bluetooth (31), CAN (29), TIPC (30), QIPCRTR
    (42), SMC (43) and XDP (44)."""
    opened = []
    for family in range(3, 46):
        if family in (INTERNET_6, 16, 17):
            continue
        for kind in (STREAM, DATAGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind, 0).close()
            except OSError:
                continue
            opened.append(family)
    return opened


@probe
def socket_in_a_folder():
    with socket.socket(UNIX) as there:
        there.connect(TARGETS["stream"])
        return there.send(WORD)


@probe
def datagram_to_a_folder():
    with socket.socket(UNIX, DATAGRAM) as there:
        return there.sendto(WORD, TARGETS["datagram"])


@probe
def datagram_of_a_pair():
    one, other = socket.socketpair(UNIX, DATAGRAM)
    with one, other:
        return one.sendto(WORD, TARGETS["datagram"])


@probe
def pair_that_is_connected_again():
    one, other = socket.socketpair(UNIX, DATAGRAM)
    with one, other:
        one.connect(TARGETS["datagram"])
        return one.send(WORD)


@probe
def stream_pair_that_is_connected_again():
    one, other = socket.socketpair(UNIX, STREAM)
    with one, other:
        one.connect(TARGETS["stream"])
        return one.send(WORD)


@probe
def message_of_a_pair():
    """Where it goes shows who listens."""
    one, other = socket.socketpair(UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        one.sendmsg([WORD], [], 0, TARGETS["datagram"])


@probe
def socket_without_a_folder():
    with socket.socket(UNIX) as there:
        there.connect("\0" + TARGETS["abstract"])
        return there.send(WORD)


@probe
def socket_of_its_own():
    with socket.socket(UNIX) as here:
        here.bind("\0mconv-attack-own")
        here.listen()
        return here.getsockname()


@probe
def ring():
    """io_uring makes sockets without a system call."""
    parameters = ctypes.create_string_buffer(248)
    return call("io_uring_setup", 4, parameters) > 0


@probe
def resolver():
    """A name that no file holds."""
    try:
        return socket.getaddrinfo("reached.invalid", 80)
    except socket.gaierror as problem:
        return problem.errno not in (-2, -3, -5) and problem


@probe
def programs_that_connect():
    """A program that it starts is held as it is."""
    code = f"import socket\nsocket.create_connection(('{LOOPBACK}', {TARGETS['tcp']}), 2)"
    return os.spawnl(os.P_WAIT, os.sys.executable, "python", "-c", code) == 0


if __name__ == "__main__":
    main()
