//! Programs that tests write and run.
//!
//! A file that any process holds open for writing cannot be executed ("text file busy"), and a
//! child that another thread starts at this moment holds whatever this process holds, until its
//! exec. So another process writes the file: this one never has it open.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::finish;

/// Copies a program to `to`.
pub fn copy(from: &str, to: &Path) {
    let mut install = Command::new("install");
    install.arg("-m").arg("755").arg(from).arg(to);
    finish(install, b"").ok();
}

/// Writes a shell script to `to`, in place of what is there.
pub fn script(to: &Path, body: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(to).stdin(Stdio::piped());
    finish(install, format!("#!/bin/sh\n{body}\n").as_bytes()).ok();
}
