//! `application/x-www-form-urlencoded`

use std::collections::BTreeMap;

/// Reads a form.
pub fn parse(body: &str) -> BTreeMap<String, String> {
    body.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_encoded_comes_back() {
        let form = parse("Action=RunInstances&Name=a+b%2Fc%C3%A9&Empty=");
        assert_eq!(form["Name"], "a b/cé");
        assert_eq!(form["Empty"], "");
    }
}
