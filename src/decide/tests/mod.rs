//! Properties of the decision, over a simulated world.

mod properties;
mod scenarios;
mod world;
