//! The program `causeway-service`.

use std::process::ExitCode;

fn main() -> ExitCode {
    causeway_service::main()
}
