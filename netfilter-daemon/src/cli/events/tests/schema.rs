//! As much of JSON Schema as ours says. What it does not know is an error, and so is a
//! field that is not described, though readers must take those.

use serde_json::Value;

pub(super) fn check(schema: &Value, value: &Value) -> Result<(), String> {
    at(schema, schema, value)
}

fn at(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    for (keyword, wanted) in schema.as_object().ok_or("no schema")? {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => Ok(()),
            "$ref" => {
                let place = wanted.as_str().and_then(|text| text.strip_prefix('#'));
                let place = place.and_then(|place| root.pointer(place));
                at(root, place.ok_or("a reference to nothing")?, value)
            }
            "oneOf" => {
                let parts = wanted.as_array().ok_or("no list")?;
                let tried: Vec<_> = parts.iter().map(|part| at(root, part, value)).collect();
                match tried.iter().filter(|tried| tried.is_ok()).count() {
                    1 => Ok(()),
                    count => Err(format!("{count} of {wanted} are {value}: {tried:?}")),
                }
            }
            "type" => {
                let one = std::slice::from_ref(wanted);
                let kinds = wanted.as_array().map_or(one, Vec::as_slice);
                let is = kinds.iter().any(|kind| kind == kind_of(value));
                is.then_some(()).ok_or(format!("{value} is no {wanted}"))
            }
            "enum" => {
                let known = wanted.as_array().ok_or("no list")?;
                let is = known.contains(value);
                is.then_some(())
                    .ok_or(format!("{value} is none of {wanted}"))
            }
            "minimum" => bound(value, wanted, |number, least| number >= least),
            "maximum" => bound(value, wanted, |number, most| number <= most),
            "required" => {
                let names = wanted.as_array().ok_or("no list")?;
                let names = names.iter().filter_map(Value::as_str);
                let mut missing = names.filter(|name| value.get(name).is_none());
                missing
                    .next()
                    .map_or(Ok(()), |name| Err(format!("{name} is missing")))
            }
            "properties" => {
                let fields = value.as_object().ok_or("no object")?;
                fields.iter().try_for_each(|(name, field)| {
                    let schema = wanted.get(name).ok_or(format!("{name} is not described"))?;
                    at(root, schema, field).map_err(|error| format!("{name}: {error}"))
                })
            }
            other => Err(format!("an unknown keyword {other}")),
        }?;
    }
    Ok(())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// It says nothing of what is no number.
fn bound(value: &Value, wanted: &Value, holds: fn(u64, u64) -> bool) -> Result<(), String> {
    match (value.as_u64(), wanted.as_u64()) {
        (Some(number), Some(bound)) if !holds(number, bound) => {
            Err(format!("{number} is out of bounds"))
        }
        _ => Ok(()),
    }
}
