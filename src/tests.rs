//! Tests of the rooms together.

#[cfg(feature = "kinesis")] // it drives the real sink of Kinesis
mod simulator;
