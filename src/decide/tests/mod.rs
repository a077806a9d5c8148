//! Proofs of the decision. Each property is shown by a test that can fail:
//!
//! | | property | shown by |
//! |---|---|---|
//! | P1 | it converges, in a bounded number of steps | [`properties`], [`model`]; [`world`]'s clock detects loops |
//! | P2 | at rest it stays at rest, however much time passes | [`world`]'s promises of rest, after every story |
//! | P3 | it survives a crash after any write | reconciles cut short in every story of [`random`] and [`model`]; [`there_and_back`] |
//! | P4 | traffic goes only to a ready version | [`world`]'s promises, at every write and every moment |
//! | P5 | nothing with traffic, endpoints or a warm window is removed | [`world`]'s promises, before every write |
//! | P6 | no traffic without the smoke test; a blocker names its cause | [`world`]'s promises, at every write and at rest |
//! | P7 | what was begun is finished | [`there_and_back`]; [`world`]'s promise of what was begun |
//! | P8 | a rollback restarts nothing that exists | [`there_and_back`], at every moment and after every write |
//! | P9 | every wait ends | [`properties`]; [`world`]'s operator sleeps until its wake-up or a change |
//! | P10 | the same observation gives the same decision | [`properties`], with every list and map made in another order |
//! | P11 | names are valid, distinct and stable | `api::names`, `render::tests` |
//! | P12 | a condition's time moves only with its status | [`world`]'s promise at every status, `api::condition` |
//! | P13 | fingerprints of settings never change | golden values in `render::fingerprint` |
//! | P14 | what is rendered is what is observed | `render::faithfulness` |
//! | P15 | every change and failed attempt is in the audit log, once | [`world`]'s promise of rest; `status::tests` |
//! | P16 | a blocker blocks what is new, and never traffic or size | [`world`]'s promises, before every write and at rest |
//! | P17 | a version is rejected for its own failure alone | [`world`]'s promise at every status |
//! | P18 | while no version answers, a ready one that has served takes over | [`world`]'s promises of rest |
//! | P20 | behind a route: no share for what is not ready, none that goes through 0, and no pod goes that the data plane may still reach | [`world`]'s promises, before every write; [`traffic`] |
//! | P21 | a challenger has what is asked for or nothing, never without a ready pod, and the sum is whole | [`world`]'s promises, before every write and at rest; [`challengers`], [`model`] |
//! | P22 | the route of somebody else changes in safe steps, is handed back, and is neither created nor deleted | [`world`]'s promises, before every write and at rest; [`referred`]; `render::referred_route` |
//! | P19 | a follower finishes a start, and ignores a list that lacks its target | [`world`]'s promise; [`scenarios`] |
//!
//! [`scenarios`] and [`stories`] are single stories: important sequences, and every counterexample ever
//! found.

#![expect(
    clippy::disallowed_methods,
    reason = "scenarios are files, and the environment sets the number of cases"
)]

mod audit;
mod budget;
mod challengers;
mod drift;
mod followers;
mod live;
mod model;
mod properties;
mod random;
mod referred;
mod rules;
mod scenario;
mod scenarios;
pub(crate) mod smoke_tests;
mod stories;
mod there_and_back;
mod traffic;
mod world;
