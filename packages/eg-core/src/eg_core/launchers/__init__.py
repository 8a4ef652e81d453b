"""The gateway's end of the one wire: how it reaches a launcher, proves who both are, and speaks to it.

``credentials``  the certificate authority, and what a launcher is given to prove itself
``stream``       one connection: a raw socket on the loop, TLS or not
``client``       the launcher's calls, and its events
"""
