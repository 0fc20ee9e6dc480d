// SPDX-License-Identifier: Apache-2.0

// render DIR prints the objects that the kustomization in DIR makes, as `kubectl apply -k` would send them, after decoding
// each of them strictly: an unknown or repeated field, a wrong type or a quantity that is none ends it with status 1.
package main

import (
	"fmt"
	"os"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func decoder() (runtime.Decoder, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme,
		monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer(), nil
}

// check returns how many of the objects are not what the API takes.
func check(objects resmap.ResMap) (int, error) {
	strict, err := decoder()
	if err != nil {
		return 0, err
	}
	wrong := 0
	for _, object := range objects.Resources() {
		text, err := object.AsYAML()
		if err != nil {
			return 0, err
		}
		if _, _, err := strict.Decode(text, nil, nil); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", object.CurId(), err)
			wrong++
		}
	}
	return wrong, nil
}

func run(directory string) error {
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy // as kubectl
	objects, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		return err
	}
	if wrong, err := check(objects); err != nil || wrong > 0 {
		return fmt.Errorf("%s: %d of %d objects are not what the Kubernetes API takes %w", directory, wrong, objects.Size(), err)
	}
	text, err := objects.AsYaml()
	if err == nil {
		_, err = os.Stdout.Write(text)
	}
	return err
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: render DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}
