//! The analysis beside other programs.

mod reference;
