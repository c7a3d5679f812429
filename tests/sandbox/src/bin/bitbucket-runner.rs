//! The program in the archive of the stand-in for Bitbucket's runner.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    std::process::exit(sandbox::standin::bitbucket::main(&arguments));
}
