//! `cml-agent`: all of it is in the library of this package.

fn main() -> std::process::ExitCode {
    agent::main()
}
