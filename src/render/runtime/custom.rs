//! The runtime `custom`: the user's own server.
//!
//! Laurel renders everything around it: image, variables, port, pod security, `/tmp` and drain. The image
//! defines the command. Laurel cannot know when the server is ready, so the template must have a readiness
//! probe.

use crate::render::runtime::Server;

pub(super) fn server() -> Server {
    Server::default()
}
