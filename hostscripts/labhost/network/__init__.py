"""Container addresses, port forwarding rules and DHCP reservations."""
