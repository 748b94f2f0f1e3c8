#include "markup.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

void put_escaped(FILE *file, const char *text) {
    static const struct {
        char c;
        const char *entity;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    for (; *text != '\0'; text++) {
        const char *entity = NULL;
        for (size_t i = 0; i < sizeof entities / sizeof entities[0]; i++)
            if (*text == entities[i].c)
                entity = entities[i].entity;
        if (entity != NULL)
            fputs(entity, file);
        else
            fputc(*text, file);
    }
}

const char *number_text(double value, int decimals, char text[NUMBER_TEXT_MAX]) {
    char plain[NUMBER_TEXT_MAX / 2]; /* grouping adds a comma for three digits */
    if (!isfinite(value) ||
        snprintf(plain, sizeof plain, "%.*f", decimals, value) >= (int)sizeof plain)
        return "–";
    const char *digits = plain + (plain[0] == '-');
    size_t whole = strcspn(digits, "."), length = 0;
    if (digits > plain)
        text[length++] = '-';
    for (size_t i = 0; digits[i] != '\0'; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0)
            text[length++] = ',';
        text[length++] = digits[i];
    }
    text[length] = '\0';
    return text;
}
