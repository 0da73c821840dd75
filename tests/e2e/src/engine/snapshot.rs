//! What an engine has, a line each.

use super::Engine;

/// The image that nodes are made from stays for the next cluster.
const NODE_IMAGE: &str = "bivouac.dev/node:";

impl Engine {
    /// Everything that a cluster could leave behind on it.
    pub(crate) fn kinds(&self) -> [(&'static str, Vec<String>); 4] {
        let list = |words: &[&str], format: &str| {
            let mut lines = self.lines(words.iter().copied().chain(["--format", format]));
            lines.sort();
            lines
        };
        let all = ["--all", "--no-trunc"];
        let mut images = list(&["image", "ls", all[0], all[1]], "{{.ID}} {{.Repository}}:{{.Tag}}");
        images.retain(|image| !image.contains(NODE_IMAGE));
        [
            ("containers", list(&["ps", all[0], all[1]], "{{.ID}} {{.Names}} {{.Image}}")),
            ("volumes", list(&["volume", "ls"], "{{.Name}}")),
            ("networks", list(&["network", "ls", all[1]], "{{.ID}} {{.Name}}")),
            ("images", images),
        ]
    }
}
