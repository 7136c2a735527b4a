//! Services on a node: packets, daemon, command line.

mod agree;
mod containers;
mod ctl;
mod daemon_attachments;
mod daemon_changes;
mod daemon_cleanup;
mod daemon_manifests;
mod daemon_repair;
mod daemon_start;
mod damaged_store;
mod dead;
mod examples;
mod first_minutes;
mod host_ports;
mod iptables_load;
mod packets;
mod poison;
mod private_networks;
mod sctp;
mod serve;
mod settings;
mod stage;
mod stores;
mod untrusted;
