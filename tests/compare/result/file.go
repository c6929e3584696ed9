// SPDX-License-Identifier: Apache-2.0

package result

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Load reads a file.
func Load(path string) (File, error) {
	var f File
	text, err := os.ReadFile(path)
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("read %s: %w", path, err)
	}
	return f, nil
}

// Save writes the file, and the directory that it is in. Each row has a line, for
// those who read a change of it.
func (f File) Save(path string) error {
	text, err := f.encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

func (f File) encode() ([]byte, error) {
	head := f
	head.Rows, head.Skipped = nil, nil
	text, err := json.MarshalIndent(head, "", "  ")
	if err != nil {
		return nil, err
	}
	end := []byte(",\n  \"Rows\": null,\n  \"Skipped\": null\n}")
	if !bytes.HasSuffix(text, end) {
		return nil, fmt.Errorf("rows are not last in %s", text)
	}
	out := bytes.NewBuffer(bytes.TrimSuffix(text, end))
	out.WriteString(",\n  \"Rows\": ")
	if err := lines(out, f.Rows); err != nil {
		return nil, err
	}
	out.WriteString(",\n  \"Skipped\": ")
	if err := lines(out, f.Skipped); err != nil {
		return nil, err
	}
	out.WriteString("\n}\n")
	return out.Bytes(), nil
}

// lines writes a list, one entry a line.
func lines[T any](out *bytes.Buffer, list []T) error {
	out.WriteByte('[')
	for i, entry := range list {
		text, err := json.Marshal(entry)
		if err != nil {
			return err
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString("\n    ")
		out.Write(text)
	}
	if len(list) > 0 {
		out.WriteString("\n  ")
	}
	out.WriteByte(']')
	return nil
}
