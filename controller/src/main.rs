//! The `phoenix` binary. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    phoenix_controller::cli::main()
}
