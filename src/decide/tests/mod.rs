//! The proofs of the decision. Each of these properties is shown by something that can fail:
//!
//! | | property | shown by |
//! |---|---|---|
//! | P1 | it converges, in a bounded number of steps | [`properties`], [`model`]; a loop is told by [`world`]'s clock |
//! | P2 | at rest it stays at rest, however much time goes by | [`world`]'s promises of rest, after every story |
//! | P3 | it survives a crash after any write | passes cut short in every story of [`random`] and [`model`]; [`there_and_back`] |
//! | P4 | traffic goes only where a ready version answers | [`world`]'s promises, at every write and at every moment |
//! | P5 | nothing that has traffic, endpoints or its warm window is taken away | [`world`]'s promises, before every write |
//! | P6 | no traffic without the smoke test; a refusal says why | [`world`]'s promises, at every write and at rest |
//! | P7 | what was begun is finished | [`there_and_back`]; [`world`]'s promise of what was begun |
//! | P8 | back to what served starts nothing that is there | [`there_and_back`], at every moment and after every write |
//! | P9 | every wait ends | [`properties`]; [`world`]'s operator sleeps until its wake-up or a change |
//! | P10 | the same observation gives the same decision | [`properties`], with every list and map made in another order |
//! | P11 | names are valid, distinct and stable | `api::names`, `render::tests` |
//! | P12 | a condition's time moves only with its status | [`world`]'s promise at every status, `api::condition` |
//! | P13 | fingerprints of settings never change | golden values in `render::fingerprint` |
//! | P14 | what is rendered is what is observed | `render::faithfulness` |
//! | P15 | every change and every failed try is in the registry's log, once | [`world`]'s promise of rest, after every story; `status::tests` |
//! | P16 | a blocker blocks what is new, and never traffic or size | [`world`]'s promises, before every write and at rest |
//! | P17 | a version is rejected for its own failure alone | [`world`]'s promise at every status |
//! | P18 | while nobody answers, whatever has served and is ready does | [`world`]'s promises of rest |
//! | P19 | a follower finishes a start, and believes no list that lacks its target | [`world`]'s promise at every status; [`scenarios`] |
//!
//! [`scenarios`] and [`stories`] are single stories: those that matter to people, and every counterexample
//! ever found.

#![expect(clippy::disallowed_methods, reason = "stories are files, and the environment asks for more cases")]

mod followers;
mod model;
mod properties;
mod random;
mod record;
mod rules;
mod scenario;
mod scenarios;
pub(crate) mod smoke_tests;
mod stories;
mod there_and_back;
mod world;
