// What deploy/ is checked with: Helm's own library lints and renders the chart, Compose's own loads the
// compose file. Prints what comes of it; ends with 1 and says what is wrong.
//
//	deploy chart FOLDER [VALUES…]   lint, then print the manifests as `helm template` does
//	deploy compose FILE [PROFILE…]  print the whole model, as `docker compose config` does
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"sort"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
)

const (
	release   = "shop"
	namespace = "shop"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 2 && args[0] == "chart":
		return chart(args[1], args[2:])
	case len(args) >= 2 && args[0] == "compose":
		return compose(args[1], args[2:])
	}
	return errors.New("usage: deploy chart FOLDER [VALUES…] | deploy compose FILE [PROFILE…]")
}

func chart(folder string, files []string) error {
	values := map[string]any{}
	for _, file := range files {
		more, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return err
		}
		values = chartutil.CoalesceTables(more, values)
	}
	for _, told := range lint.All(folder, values, namespace, true).Messages {
		if told.Severity >= support.WarningSev {
			return fmt.Errorf("%s: %w", told.Path, told.Err)
		}
	}
	loaded, err := loader.Load(folder)
	if err != nil {
		return err
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	rendered, err := chartutil.ToRenderValues(loaded, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return err
	}
	manifests, err := engine.Engine{Strict: true}.Render(loaded, rendered)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(manifests))
	for name := range manifests {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		text := strings.TrimSpace(manifests[name])
		if text != "" && !strings.HasPrefix(path.Base(name), "_") && path.Ext(name) != ".txt" {
			fmt.Printf("---\n# Source: %s\n%s\n", name, strings.TrimPrefix(text, "---\n"))
		}
	}
	return nil
}

func compose(file string, profiles []string) error {
	options, err := cli.NewProjectOptions(
		[]string{file}, cli.WithOsEnv, cli.WithProfiles(profiles), cli.WithInterpolation(true),
		cli.WithResolvedPaths(true), cli.WithConsistency(true),
	)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	text, err := project.MarshalYAML()
	if err != nil {
		return err
	}
	fmt.Print(string(text))
	return nil
}
