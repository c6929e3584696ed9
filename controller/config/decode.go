// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Decode reads a configuration in YAML or JSON, without defaults. It lists what is
// unknown, or there twice, and is left out. Fields with values of a wrong type are
// errors, all of them joined, and left out of the result, which is nil only if the text
// is no YAML.
func Decode(data []byte) (c *Configuration, unknown []string, err error) {
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		lenient, second := yaml.YAMLToJSON(data)
		if second != nil {
			return nil, nil, err
		}
		text = lenient
		unknown = append(unknown, "a key is there twice, of which the last one counts: "+oneLine(err))
	}
	c = &Configuration{}
	d := decoder{}
	d.object("", text, reflect.ValueOf(c).Elem())
	if c.APIVersion != apiVersion || c.Kind != kind {
		d.errs = append(d.errs, fmt.Errorf("apiVersion %q, kind %q: this file is none of kube-proxy, which says %s, %s",
			c.APIVersion, c.Kind, apiVersion, kind))
	}
	return c, append(unknown, d.unknown...), errors.Join(d.errs...)
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// decoder fills structs field by field, where encoding/json would stop at the first
// value that does not fit.
type decoder struct {
	unknown []string
	errs    []error
}

// object decodes a JSON object into a struct.
func (d *decoder) object(path string, text []byte, into reflect.Value) {
	if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
		return
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(text, &values); err != nil {
		what := "it"
		if path != "" {
			what = path
		}
		d.errs = append(d.errs, fmt.Errorf("%s: is no mapping of fields to values", what))
		return
	}
	fields := fieldsOf(into)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		at := name
		if path != "" {
			at = path + "." + name
		}
		field, ok := fields[name]
		switch {
		case !ok:
			d.unknown = append(d.unknown, fmt.Sprintf("unknown field %q", at))
		case isObject(field.Type()):
			d.object(at, values[name], field)
		default:
			if err := json.Unmarshal(values[name], field.Addr().Interface()); err != nil {
				d.errs = append(d.errs, fmt.Errorf("%s: %s is no %s", at, values[name], wanted(field.Type())))
			}
		}
	}
}

// fieldsOf lists a struct's fields by their names in JSON, those of embedded structs
// among them.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	all := make(map[string]reflect.Value)
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name == "" {
			maps.Copy(all, fieldsOf(v.Field(i)))
			continue
		}
		all[name] = v.Field(i)
	}
	return all
}

// isObject reports whether a type is decoded field by field.
func isObject(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}

// wanted says in an operator's words what a field takes.
func wanted(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case strings.Contains(t.Name(), "Duration"):
		return "duration like 30s"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Slice:
		return "list of " + wanted(t.Elem())
	case t.Kind() == reflect.Map:
		return "mapping of names to " + wanted(t.Elem())
	case t.Kind() == reflect.Struct:
		return "such value"
	default:
		return "number that fits"
	}
}
