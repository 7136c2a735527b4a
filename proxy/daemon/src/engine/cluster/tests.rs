//! The engine with a cluster store that the test plays: what it says to the store, what it makes of
//! what the store says.

mod balancers;
mod limits;
mod nodes;
mod objects;
mod world;
