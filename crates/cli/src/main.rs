mod embed;
fn main() {}
