//! What runs on the nodes, rendered to node configs.
