"""Real servers for tests: one module each says how it is installed, started, waited for and stopped.

    python -m tools.services install            # all that this machine can run
    python -m tools.services start kafka        # until you press Ctrl-C; says its address

Nothing runs in containers: programs come from the package clients of the machine into `.cache/services`,
but for those that only Debian has, which are installed where that is allowed. Servers listen on the loopback on free ports, keep what
they hold in a folder of their own under `.cache/services/run`, and end by their process ids.
"""
