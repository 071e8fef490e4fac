"""SSH to the servers: the only place that knows Fabric and Paramiko."""
