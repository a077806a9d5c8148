//! Properties of the decision, over a simulated world.

mod followers;
mod model;
mod properties;
mod random;
mod rules;
mod scenario;
mod scenarios;
mod stories;
mod there_and_back;
mod world;
