//! The kernel interfaces bivouac needs: namespaces, mounts, cgroups, netlink, pidfds.
