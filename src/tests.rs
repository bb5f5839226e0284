//! Tests of the rooms together.

mod simulator;
