//! The program `causeway-ipam`.

use std::process::ExitCode;

fn main() -> ExitCode {
    causeway_ipam::main()
}
