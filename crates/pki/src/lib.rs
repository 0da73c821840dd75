//! Certificate authorities, certificates and kubeconfigs.
