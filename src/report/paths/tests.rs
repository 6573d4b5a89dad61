//! What is read from a report's text, and what is not.

use super::*;

fn paths(texts: &[&str]) -> Paths {
    let paths: Vec<Path> = texts.iter().map(|text| text.parse().expect(text)).collect();
    Slot::dimensions().zip(&paths).collect()
}

/// The values of the first slots for dimensions.
fn read<const N: usize>(texts: [&str; N], report: &str) -> [Option<String>; N] {
    let values = paths(&texts).read(report);
    std::array::from_fn(|index| values[index + 1].clone())
}

fn one(value: &str) -> Option<String> {
    let [found] = read(["a.b"], &format!(r#"{{"x":[{{}}],"a":{{"c":{{}},"b": {value} }}}}"#));
    found
}

#[test]
fn numbers_are_written_out_as_postgres_writes_them() {
    for (sent, expected) in [
        ("7", "7"),
        ("-7", "-7"),
        ("1.50", "1.50"),
        ("1e3", "1000"),
        ("1.5E+1", "15"),
        ("1.50e1", "15.0"),
        ("1.5e3", "1500"),
        ("12e-1", "1.2"),
        ("1e-3", "0.001"),
        ("-1.0e-3", "-0.0010"),
        ("-0", "0"),
        ("-0.0", "0.0"),
        ("0e5", "0"),
        ("0.00e3", "0"),
        ("0e-3", "0.000"),
        ("9007199254740993", "9007199254740993"),
        ("0.1e1", "1"),
    ] {
        assert_eq!(one(sent).as_deref(), Some(expected), "{sent}");
    }
    assert_eq!(one("1e300").map(|text| text.len()), Some(301));
}

#[test]
fn scalars_are_values_and_the_rest_is_absent() {
    assert_eq!(one(r#""ed\u0067e""#).as_deref(), Some("edge"));
    assert_eq!(one("true").as_deref(), Some("true"));
    assert_eq!(one("false").as_deref(), Some("false"));
    for absent in ["null", "{}", r#"["x"]"#, r#"{"b":1}"#, r#""""#, r#"" \t""#] {
        assert_eq!(one(absent), None, "{absent}");
    }
    let long = format!("\"{}\"", "ä".repeat(600));
    assert_eq!(one(&long).map(|text| text.chars().count()), Some(512));
}

#[test]
fn keys_lead_through_objects_only_and_may_be_escaped() {
    let [cdn, plan] = read(["c.cdn", "c.plan.name"], r#"{"\u0063":{"cdn":"x","plan":"y"}}"#);
    assert_eq!((cdn.as_deref(), plan.as_deref()), (Some("x"), None));
    assert_eq!(read(["c.0"], r#"{"c":["x"]}"#), [None]);
    assert_eq!(read(["c.0"], r#"{"c":{"0":"x"}}"#), [Some("x".to_owned())]);
    // A number that no f64 holds does not stop the others.
    let huge = format!(r#"{{"a":{},"b":"x"}}"#, "9".repeat(400));
    assert_eq!(read(["a.b", "b"], &huge), [None, Some("x".to_owned())]);
}

#[test]
fn a_path_may_end_where_another_goes_on_or_where_another_ends() {
    let [a, b, c] = read(["a", "a.b", "a.b"], r#"{"a":{"b":1}}"#);
    assert_eq!((a, b.as_deref(), c.as_deref()), (None, Some("1"), Some("1")));
    let [a, b, _] = read(["a", "a.b", "a.b"], r#"{"a":2}"#);
    assert_eq!((a.as_deref(), b), (Some("2"), None));
}

#[test]
fn of_keys_that_appear_twice_the_last_one_counts() {
    assert_eq!(read(["a"], r#"{"a":"x","a":"y"}"#), [Some("y".to_owned())]);
    assert_eq!(read(["a"], r#"{"a":"x","a":null}"#), [None]);
    let twice = r#"{"a":{"b":"x"},"a":{"c":"y"}}"#;
    assert_eq!(read(["a.b", "a.c"], twice), [None, Some("y".to_owned())]);
}

#[test]
fn paths_are_read_and_shown() {
    assert_eq!(
        " custom . cdn".parse::<Path>().map(|path| path.to_string()),
        Ok("custom.cdn".to_owned())
    );
    for wrong in ["", " ", ".", "a.", ".a", "a..b", "timelineEvents", "timelineEvents.a", "a\u{7}"]
    {
        assert_eq!(wrong.parse::<Path>(), Err(Path::EXPECTED), "{wrong}");
    }
    assert!("custom.timelineEvents".parse::<Path>().is_ok());
}
