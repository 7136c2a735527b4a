//! What the kernel answers about nf_tables.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| causeway_nft::fuzz::decode(bytes));
