//! Properties of the analysis, and its values beside those of other programs.
//!
//! | file | shows |
//! |---|---|
//! | `fair` | evidence has mean 1 where the null is true, summed exactly over every outcome |
//! | `comparisons` | monotone, symmetric, independent of order; nothing from batches without information |
//! | `extremes` | any counts: no panic, no NaN |
//! | `ledger`, `gaps` | counters, restarts, pods that come and go; what is not known |
//! | `watch`, `restarts` | evidence as a fold: keys, guards, what survives a restart |
//! | `conclusions` | what each finding means for traffic |
//! | `experiments` | outcomes of experiments |
//! | `simulated` | false alarms and power, on simulated traffic |
//! | `reference` | values of other programs |

mod comparisons;
mod conclusions;
mod experiments;
mod extremes;
mod fair;
mod gaps;
mod ledger;
mod reference;
mod restarts;
mod simulated;
mod support;
mod watch;
