"""The worker's processes: the django-q cluster, its broker, and who holds a lease."""
