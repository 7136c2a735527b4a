//! The program `causeway-bridge`.

use std::process::ExitCode;

fn main() -> ExitCode {
    causeway_bridge::main()
}
