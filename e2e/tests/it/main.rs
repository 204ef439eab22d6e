//! End to end: real processes, real stores, real brokers.

mod brokers_switched;
mod every_field;
mod failover;
mod kill_api;
mod kill_before_answering;
mod kill_workers;
mod losing_the_broker;
mod model;
mod original_examples;
mod postgres_promotions;
mod redrive;
mod traces;
