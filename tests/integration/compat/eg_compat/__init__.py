"""What the compatibility tests share: gateways of three kinds, certificates, and the lists of what differs."""
