//! A plan in the kernel.
