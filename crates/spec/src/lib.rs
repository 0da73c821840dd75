//! The data that crosses bivouac's seams: cluster file, node config, facts, status.
