//! The list of cases.

use super::{Case, commands, life};

macro_rules! cases {
    ($($name:literal => $module:ident::$function:ident,)*) => {
        /// Every case, in the order in which they run.
        pub const ALL: &[Case] = &[$(Case {
            name: $name,
            run: |provider, ground| Box::pin($module::$function(provider, ground)),
        },)*];
    };
}

cases! {
    "a survey tells of the ground and leaves nothing" => life::survey,
    "what is absent is stopped and removed with success" => life::absent,
    "a node runs as it was asked for" => life::ensure,
    "making a node again changes nothing" => life::again,
    "a stopped node starts again with its data and a new config" => life::restart,
    "a node that runs takes a new config, limits and neighbours" => life::update,
    "nodes are made at the same time" => life::parallel,
    "removing a node leaves the others" => life::destroy_one,
    "removing a cluster leaves nothing" => life::destroy_all,
    "exit codes and signals come back" => commands::exit_codes,
    "standard streams are the command's own" => commands::streams,
    "a dropped command ends" => commands::dropped,
    "an unknown command is refused" => commands::unknown,
    "files are written whole and read back" => commands::files,
    "the config is delivered and the agent tells its status" => commands::status,
    "logs are read by name" => commands::logs,
    "nothing can be run in a stopped node" => commands::stopped,
}
