// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// decode fills v, the zero value of an API type, from n, by the types' JSON
// names. It is as strict as can be: unknown and duplicate fields, numbers for
// texts and texts for numbers are problems, and all problems are returned.
func decode(n *node, v reflect.Value) []problem {
	if n.kind == nullNode {
		return nil
	}
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		return decodeJSON(n, u)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return decode(n, v.Elem())
	case reflect.Struct:
		return decodeStruct(n, v)
	case reflect.Map:
		return decodeMap(n, v)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			return decodeList(n, v)
		}
	case reflect.String:
		if n.kind == textNode {
			v.SetString(n.text)
			return nil
		}
		return wrong(n, "wants a text", " (in quotes, if that is meant)")
	case reflect.Bool:
		if n.kind == boolNode {
			v.SetBool(strings.EqualFold(n.text, "true"))
			return nil
		}
		return wrong(n, "wants true or false", "")
	case reflect.Int, reflect.Int32, reflect.Int64:
		return decodeInt(n, v)
	}
	return decodeJSON(n, v.Addr().Interface())
}

func wrong(n *node, want, hint string) []problem {
	if n.kind == mapNode || n.kind == listNode {
		hint = ""
	}
	return []problem{{line: n.line, text: want + ", not " + n.quoted() + hint}}
}

func decodeInt(n *node, v reflect.Value) []problem {
	if n.kind != intNode {
		hint := ""
		if _, err := strconv.Atoi(n.text); err == nil {
			hint = " (leave out the quotes)"
		}
		return wrong(n, "wants a whole number", hint)
	}
	i, err := n.integer()
	if err != nil || v.OverflowInt(i) {
		return []problem{{line: n.line, text: fmt.Sprintf("the number %.60s is out of range", n.text)}}
	}
	v.SetInt(i)
	return nil
}

func decodeJSON(n *node, into any) []problem {
	data, err := json.Marshal(n)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return []problem{{line: n.line, text: err.Error()}}
	}
	return nil
}

func decodeList(n *node, v reflect.Value) []problem {
	if n.kind != listNode {
		return wrong(n, "wants a list", "")
	}
	var problems []problem
	list := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		if p := decode(item, list.Index(i)); p != nil {
			problems = append(problems, under("["+strconv.Itoa(i)+"]", p)...)
		}
	}
	v.Set(list)
	return problems
}

func decodeMap(n *node, v reflect.Value) []problem {
	if n.kind != mapNode {
		return wrong(n, "wants a mapping", "")
	}
	problems := duplicates(n)
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.fields)))
	for _, f := range n.fields {
		value := reflect.New(v.Type().Elem()).Elem()
		if p := decode(f.value, value); p != nil {
			problems = append(problems, under(f.name, p)...)
		}
		v.SetMapIndex(reflect.ValueOf(f.name).Convert(v.Type().Key()), value)
	}
	return problems
}

func decodeStruct(n *node, v reflect.Value) []problem {
	if n.kind != mapNode {
		return wrong(n, "wants a mapping", "")
	}
	problems := duplicates(n)
	known := fieldsOf(v.Type())
	for _, f := range n.fields {
		index, ok := known[f.name]
		if !ok {
			problems = append(problems, problem{line: f.line, path: f.name, text: "unknown field" + nearest(f.name, known)})
			continue
		}
		if p := decode(f.value, v.FieldByIndex(index)); p != nil {
			problems = append(problems, under(f.name, p)...)
		}
	}
	return problems
}

// duplicates reports the fields that n says twice.
func duplicates(n *node) []problem {
	var problems []problem
	first := make(map[string]int, len(n.fields))
	for _, f := range n.fields {
		if line, ok := first[f.name]; ok {
			problems = append(problems, problem{line: f.line, path: f.name, text: fmt.Sprintf("said twice, first in line %d", line)})
			continue
		}
		first[f.name] = f.line
	}
	return problems
}

// nearest names the field that was probably meant: same letters, other case.
func nearest(name string, known map[string][]int) string {
	for k := range known {
		if strings.EqualFold(k, name) {
			return "; " + k + " is meant?"
		}
	}
	return ""
}

// fieldCache holds what fieldsOf returned, by reflect.Type.
var fieldCache sync.Map

// fieldsOf returns the JSON names of a struct type's fields, those of embedded
// structs without a name of their own included.
func fieldsOf(t reflect.Type) map[string][]int {
	if known, ok := fieldCache.Load(t); ok {
		return known.(map[string][]int)
	}
	known := map[string][]int{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			for inner, index := range fieldsOf(f.Type) {
				known[inner] = append(append([]int{}, f.Index...), index...)
			}
		case name == "":
			known[f.Name] = f.Index
		default:
			known[name] = f.Index
		}
	}
	fieldCache.Store(t, known)
	return known
}
