"""The rig: Kubernetes from source, one node in namespaces, images without Docker."""
