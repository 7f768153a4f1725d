/* parameters.c - see parameters.h */
#include "node/parameters.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "node/base/err.h"

#include "node/config.h"

static const char *const results[] = {
    [CONFIG_RESULT_SECONDARY_CAPTURE] = "secondary-capture",
    [CONFIG_RESULT_MR_IMAGE] = "mr-image",
};

static const char *const qualities[] = {
    [CONFIG_QUALITY_PASS] = "pass",
    [CONFIG_QUALITY_MARK] = "mark",
    [CONFIG_QUALITY_REFUSE] = "refuse",
};
static const char usual_quality[] = "refuse,refuse,pass";

/* What the gate may do under a rule (NULL: without one). */
static void gate_under(const struct config_gate *section, const struct config_rule *rule,
                       struct config_gate *out)
{
    *out = *section;
    if (rule != NULL && rule->quality != CONFIG_QUALITY_DEFAULT)
        out->input = out->result = rule->quality;
}

int parameters_gate_read(const struct parameters *p, struct config_gate *out, struct err *e)
{
    enum config_quality *const to[] = {&out->input, &out->result, &out->uncalibrated};
    const char *at = p->quality;
    for (int i = 0; i < 3; i++) {
        size_t n = strcspn(at, ",");
        int k = 0;
        while (k < 3 && (strlen(qualities[k]) != n || strncmp(qualities[k], at, n) != 0))
            k++;
        at += n;
        if (k == 3 || *at != (i < 2 ? ',' : '\0'))
            return err_set(e, ERR_INVALID, "a job's quality is '%s'", p->quality);
        *to[i] = (enum config_quality)k;
        at += i < 2;
    }
    return 0;
}

int parameters_encode(const struct config *config, const struct config_rule *rule,
                      const char *contrast, char out[STORE_LONG], struct err *e)
{
    struct parameters check;
    if (strpbrk(rule->description, "\r\n") != NULL)
        return err_set(e, ERR_INVALID, "rule %s: its description has a line end", rule->name);
    struct config_gate gate;
    char quality[32];
    gate_under(&config->quality, rule, &gate);
    snprintf(quality, sizeof quality, "%s,%s,%s", qualities[gate.input], qualities[gate.result],
             qualities[gate.uncalibrated]);
    bool usual = strcmp(quality, usual_quality) == 0;
    int n = snprintf(out, STORE_LONG,
                     "contrast=%s\nresult=%s\nqualification=%s\ndescription=%s\n%s%s%s",
                     rule->assume_contrast[0] ? rule->assume_contrast : contrast,
                     results[rule->result], config->node.content_qualification, rule->description,
                     usual ? "" : "quality=", usual ? "" : quality, usual ? "" : "\n");
    if (n < 0 || n >= STORE_LONG)
        return err_set(e, ERR_LIMIT, "rule %s: its description is too long", rule->name);
    int rc = parameters_decode(out, &check, e);
    return rc == 0 ? 0 : err_context(e, "rule %s", rule->name);
}

int parameters_decode(const char *text, struct parameters *out, struct err *e)
{
    const struct {
        const char *name;
        char *value;
        size_t size;
    } lines[] = {
        {"contrast=", out->contrast, sizeof out->contrast},
        {"result=", out->result, sizeof out->result},
        {"qualification=", out->qualification, sizeof out->qualification},
        {"description=", out->description, sizeof out->description},
        {"quality=", out->quality, sizeof out->quality},
    };
    snprintf(out->quality, sizeof out->quality, "%s", usual_quality);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        size_t name = strlen(lines[i].name);
        if (*text == '\0' && lines[i].value == out->quality)
            break;
        if (strncmp(text, lines[i].name, name) != 0)
            return err_set(e, ERR_INVALID, "a job's parameters lack %s", lines[i].name);
        text += name;
        size_t n = strcspn(text, "\n");
        if (n >= lines[i].size)
            return err_set(e, ERR_LIMIT, "%.*s is longer than %zu characters", (int)name - 1,
                           lines[i].name, lines[i].size - 1);
        memcpy(lines[i].value, text, n);
        lines[i].value[n] = '\0';
        text += n + (text[n] == '\n');
    }
    out->mr_image = strcmp(out->result, results[CONFIG_RESULT_MR_IMAGE]) == 0;
    if (!out->mr_image && strcmp(out->result, results[CONFIG_RESULT_SECONDARY_CAPTURE]) != 0)
        return err_set(e, ERR_UNSUPPORTED, "a job asks for result type '%s'", out->result);
    return 0;
}
