// SPDX-License-Identifier: Apache-2.0

// Command cri calls a container runtime as the kubelet does, through the Container
// Runtime Interface: it reads a request as JSON and prints the response as JSON.
//
//	cri unix:///run/containerd/containerd.sock RunPodSandbox <request.json
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	_ "k8s.io/cri-api/pkg/apis/runtime/v1" // registers what call looks up
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cri ADDRESS METHOD <REQUEST")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, name string) error {
	request, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	response, err := call(ctx, address, name, request)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err = os.Stdout.Write(response)
	return err
}

// call sends a request to the service that has the method.
func call(ctx context.Context, address, name string, request []byte) ([]byte, error) {
	method, err := find(name)
	if err != nil {
		return nil, err
	}
	in, err := message(method.Input())
	if err != nil {
		return nil, err
	}
	out, err := message(method.Output())
	if err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal(request, in); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if err := conn.Invoke(ctx, path, in, out); err != nil {
		return nil, err
	}
	return protojson.Marshal(out)
}

// find returns the method of the runtime or the image service.
func find(name string) (protoreflect.MethodDescriptor, error) {
	for _, service := range []protoreflect.FullName{"runtime.v1.RuntimeService", "runtime.v1.ImageService"} {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(service)
		if err != nil {
			return nil, err
		}
		if method := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name)); method != nil {
			return method, nil
		}
	}
	return nil, fmt.Errorf("no such method")
}

func message(d protoreflect.MessageDescriptor) (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return nil, err
	}
	return t.New().Interface(), nil
}
