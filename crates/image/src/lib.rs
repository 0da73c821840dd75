//! The store, OCI layouts and layers, and building the node image from the bundle.
