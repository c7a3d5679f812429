//! The program in the stand-in runner's archive.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    std::process::exit(sandbox::standin::main(&arguments));
}
