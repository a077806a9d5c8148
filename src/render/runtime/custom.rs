//! A server of one's own.
//!
//! Laurel renders everything around it: image, variables, port, pod security, `/tmp` and drain. The command
//! is the image's. Laurel cannot know when the server is ready, so the template has to say it with a
//! readiness probe.

use crate::render::runtime::Server;

pub(super) fn server() -> Server {
    Server::default()
}
